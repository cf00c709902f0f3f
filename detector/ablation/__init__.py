"""Which loss is better? A grid of runs that differ in nothing else, and what they show.

grid: axes -> cells with checked configurations · cells: the ablation, training one cell · engines:
where cells run · tuning: learning rates first · effects: differences between methods · summary ->
tables, notes, pictures -> page (text, Markdown, LaTeX, HTML) · report: all of that.
"""
