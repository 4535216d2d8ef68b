"""Checks the report of `starling demo --json`: python3 check_demo.py NODES < REPORT."""

import json
import sys

# The classes that each image may be taken for; three kinds of cat share the first place.
CLASSES = {"chelsea.jpg": {281, 282, 285}, "coffee.jpg": {967}, "camera.jpg": {872}}


def check(report, nodes):
    assert report["nodes"] == nodes, "another number of nodes"
    assert report["discovery_ms"] > 0, "no time until the nodes were found"
    auction = report["auction"]
    pieces = report["pieces"]
    assert 1 <= auction["rounds"] <= auction["bids"] <= auction["messages"], f"counts: {auction}"
    assert auction["ms"] > 0, "an auction in no time"
    assert len(pieces) >= 1, "no plan"
    first, lane = 0, 0
    for piece in pieces:
        if piece["lane"] != lane:
            # Another plan beside it: the one before must be whole.
            first, lane = 0, piece["lane"]
        assert piece["layers"][0] == first <= piece["layers"][1], f"a gap or overlap at {piece}"
        assert 0 < piece["share"] <= 1 and piece["predicted_ms"] > 0, f"a share or time: {piece}"
        first = piece["layers"][1] + 1
    assert 0 < report["jain"] <= 1, "Jain's index"
    images = {image["file"]: image for image in report["images"]}
    assert images.keys() == CLASSES.keys(), f"images: {sorted(images)}"
    for file, classes in CLASSES.items():
        top = images[file]["top"][0]
        assert top["class"] in classes, f"{file} taken for {top}"
        assert images[file]["max_abs_diff"] <= 1e-4, f"{file}: not what a local run gives"
    for name in ("flock_per_s", "best_node_per_s", "unsplit_per_s", "speedup"):
        assert report["throughput"][name] > 0, f"throughput: no {name}"


report = json.load(sys.stdin)
check(report, int(sys.argv[1]))
throughput = report["throughput"]
print(
    f"   {len(report['pieces'])} pieces on {report['nodes']} nodes, "
    f"{throughput['flock_per_s']} inferences/s, {throughput['speedup']} x the best node alone"
)
