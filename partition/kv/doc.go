// Package kv is the built-in ordered key-value kind.
package kv
