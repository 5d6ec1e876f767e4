package actors

// Version is the version of this program, told to other nodes.
const Version = "0.1.0"
