// Package pulse wakes any number of goroutines when something has changed.
package pulse
