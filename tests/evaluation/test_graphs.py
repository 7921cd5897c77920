"""The rows as graphs: what they wire, without a host."""

import pytest
from ella_lmd.evaluation.images import graphs
from ella_lmd.evaluation.run import Job

LAYOUT = {"canvas": [512, 512], "objects": [{"phrase": "a cat", "box": [0.1, 0.2, 0.4, 0.5]}], "background": "a park"}


def graph(row, **settings):
    own = graphs.DEFAULTS | graphs.OWN.get(graphs.ROWS[row].own, {}) | {"base": row} | settings
    return graphs.graph_of(Job("lmd", "1", "spatial", "a cat in a park", 3, row, LAYOUT, own), lambda name: {})


def nodes(found, kind):
    return {i: n["inputs"] for i, n in found.items() if n["class_type"] == kind}


def test_lmd_plus_gives_the_same_adapter_to_both_stages():
    found = graph("lmd+", gligen="mine.safetensors")
    ((loader, inputs),) = nodes(found, "GLIGENLoader").items()
    assert inputs == {"gligen_name": "mine.safetensors"}
    (objects,), (composed,) = nodes(found, "BoxGroundedSampler").values(), nodes(found, "LatentComposer").values()
    assert objects["gligen"] == composed["gligen"] == [loader, 0] and objects["preset"] == "lmd+"
    plain = graph("lmd")
    assert not nodes(plain, "GLIGENLoader") and "gligen" not in str(plain)


@pytest.mark.parametrize("row", graphs.ROWS)
def test_every_row_ends_in_one_saved_picture_and_every_link_has_its_node(row):
    found = graph(row)
    assert len(nodes(found, "SaveImage")) == 1
    links = [v for n in found.values() for v in n["inputs"].values() if isinstance(v, list)]
    assert links and all(v[0] in found for v in links)
