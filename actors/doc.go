// Package actors runs everything: it hosts the pure machines in supervised
// actors, links nodes to each other, routes requests to masters and answers
// clients. It is the one package that knows about goroutines, clocks and
// sockets, and the one that an embedder starts.
package actors
