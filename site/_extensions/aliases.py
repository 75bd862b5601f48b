"""What the package offers by itself has the address of its module as well: `llmva.EditLog`, `llmva.edits.log.EditLog`.

The pages of the code keep one name for each module, the first that documents it, and link back to ids made of it.
"""

from sphinx import addnodes

import llmva


def add_ids(app, document) -> None:
    for node in document.findall(addnodes.desc_signature):
        root = node.get("fullname", "").partition(".")[0]
        if node.get("module") == llmva.__name__ and root in llmva.PUBLIC:
            node["ids"].append(f"{llmva.PUBLIC[root]}.{node['fullname']}")


def setup(app) -> dict:
    app.connect("doctree-read", add_ids)
    return {"parallel_read_safe": True}
