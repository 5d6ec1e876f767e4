// Package logline turns the log lines of libraries that write text with a level
// in brackets into records of slog, and keeps the same complaint from being
// repeated many times a second.
package logline
