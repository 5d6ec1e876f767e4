// Package mpcheck checks the structure of a msgpack body before anything
// decodes it.
//
// A msgpack decoder believes the counts and lengths that the bytes declare: five
// bytes can ask for hundreds of gigabytes, and a few megabytes of nested arrays
// overflow the stack, neither of which a recover catches. [Check] walks the body
// once, without recursion and without allocating, and refuses what no honest
// peer sends: a count that the bytes left cannot hold, too many elements, too
// much nesting, an extension type, a reserved code, bytes behind the value.
//
// A body that passes is well-formed, so a decoder allocates at most the body's
// bytes plus Limits.Elements times the size of its largest element. That still
// leaves two duties to the caller: cap the bytes of the frame, and decode into
// fixed structs only.
package mpcheck
