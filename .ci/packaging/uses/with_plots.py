"""One plot is drawn."""

import io

import sc_glm as sg

data = sg.datasets.make_counts(80, 3, random_state=0)
model = sg.make_pipeline(sg.FormulaTransformer("~ pseudotime"), sg.NegBinRegressor())
display = sg.plots.RootogramDisplay.from_estimator(
    model.fit(data.obs, data.counts), data.obs, data.counts
)
picture = io.BytesIO()
display.figure_.savefig(picture, format="png")
assert picture.getvalue().startswith(b"\x89PNG")
