// Package mutate feeds decoders with spoiled inputs, many more of them than
// coverage-guided fuzzing can in the same time: it changes seeds in the ways in
// which a disk, a wire or an attacker changes them, and watches what the decoder
// allocates and how long it takes. The fuzz targets find new paths; this one
// walks the known ones a hundred times as often. Tests only.
package mutate
