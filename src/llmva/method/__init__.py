"""LLM-VA, one module per step, in the order of the paper.

`control_vectors`  Eq. 2 to 4   v_a and v_b of every sublayer, by `svm` and `newton`      notebooks 01, 02
`layer_selection`  Eq. 5, 6     score = influence x accuracy; the best L_select           notebook 03
`edit`             Eq. 7 to 9   W <- W + v_a (s v_b - v_a)^T W; `ridge_edit` is ours      notebooks 04, 13
`iteration`, `loop`  4.3        one iteration; T of them, and the choice among them       notebooks 04, 08
"""
