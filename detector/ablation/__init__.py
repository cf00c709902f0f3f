"""Which loss is better? A grid of runs that differ in nothing else, and what they show.

grid: axes -> cells with checked configurations · cells: training one · engines: where they run ·
tuning: learning rates first · effects: what the figures can say · summary, tables · page: pictures,
HTML, TensorBoard · report: all of that.
"""
