// Package control is the control group: the few decisions that belong to no
// group of their own.
package control
