// Command errpaths measures which error paths the tests have executed.
//
// It reads a coverage profile and the typed source, and lists every block that
// runs only because something failed and that no test has run. A block is
// counted under one of two headings:
//
//   - handled: the body of an if or a case whose condition tests an error
//     (err != nil, errors.Is, a recovered panic), or the else of err == nil;
//   - raised: any other block that returns a fresh error.
//
// Most catastrophic failures come out of the wrong handling of an error that
// was signalled, so what no test ran is not known to work. Blocks that cannot
// be reached by a test stand in allowed.txt, each with its reason; an entry
// that no longer fits its source is an error itself.
//
//	go test -coverpkg=./... -coverprofile=cover.out ./...
//	go run ./internal/errpaths -profile cover.out -least 85
package main
