"""The masks by name, without torch: how each is made is in ``masks``."""

SUMMARIES = {
    "wagle": "gain of forgetting less loss of retaining, 2410.17509",
    "fisher-wagle": "the same with the Fisher diagonal",
    "gradient": "forget gradient, SalUn 2310.12508",
    "snip": "weight times forget gradient, 1810.02340",
    "magnitude": "size of the weight",
    "random": "the baseline",
    "wanda": "weight times input on the forget set, 2306.11695",
    "sure": "neurons by forget gradient, 2410.16454",
    "circuit": "modules by the first-order effect of removing them",
    "rmu": "the layers that RMU trains, 2403.03218",
}
"""Name on the command line -> what the score is, and its paper."""
