"""Mathematics as MathML, which browsers draw by themselves: no script, and nothing to fetch."""

from latex2mathml.converter import convert


def draw_inline(writer, node) -> None:
    writer.body.append(_converted(node, "inline"))


def draw_block(writer, node) -> None:
    writer.body.append(f'<div class="math" role="math">{_converted(node, "block")}</div>\n')


def leave(writer, node) -> None:
    """Do nothing: the node was written as a whole."""


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (_visit(draw_inline), leave), (_visit(draw_block), leave))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True}


def _visit(draw):
    def visit(writer, node) -> None:
        from docutils.nodes import SkipNode

        draw(writer, node)
        raise SkipNode

    return visit


def _converted(node, display: str) -> str:
    text = node.astext()
    drawn = convert(text, display=display)
    if "\\" in drawn.replace("\\{", "").replace("\\}", ""):
        raise ValueError(f"mathematics that MathML does not have: {text}")
    return drawn
