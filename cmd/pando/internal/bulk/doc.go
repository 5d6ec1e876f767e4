// Package bulk moves whole files into and out of a key-value table.
//
// [Reader] cuts an input into items, each with the position behind it in the
// input. [Load] stores them with many writes under way at once, keeps the order
// of writes to the same key, and knows up to where everything is acknowledged;
// a [Progress] file keeps that position, so that an interrupted load goes on
// where it was. [Export] writes a table in key order.
//
// Nothing here knows a network: a table is two functions.
package bulk
