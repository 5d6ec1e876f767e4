// Package store keeps the state of a node's replicas: one Pebble store each.
package store
