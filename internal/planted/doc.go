// Package planted names the mistakes that the product knows how to make on
// purpose, so that tests can show who notices each of them.
//
// A [Bug] is a rule of the protocol, of the log, of the leases or of a host by
// its absence. Product code asks its Config for a [Set] of them, which is empty
// unless a test or the simulator has filled it: the type lives below internal,
// so no other module can name one, and no flag, file or message leads to it. A
// checker counts only after it was seen to catch the bug that it is there for;
// how many of these are caught is the score of the simulator.
//
// The package imports nothing but the standard library, so that everybody may
// ask.
package planted
