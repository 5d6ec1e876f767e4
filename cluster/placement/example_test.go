package placement_test

import (
	"fmt"

	"pando.dev/pando/cluster/placement"
)

// A group gets one node of each zone; the node of twice the weight is chosen
// twice as often in its zone.
func ExamplePlace() {
	nodes := []placement.Node{
		{ID: "n-1", Zone: "east"}, {ID: "n-2", Zone: "east", Weight: 2},
		{ID: "n-3", Zone: "north"}, {ID: "n-4", Zone: "south"},
	}
	ids, err := placement.Place(7, nodes, 3)
	fmt.Println(ids, err)
	_, err = placement.Place(7, nodes, 5)
	fmt.Println(err)
	// Output:
	// [n-2 n-4 n-3] <nil>
	// refused: 5 replicas on 4 nodes; add nodes or ask for fewer replicas
}
