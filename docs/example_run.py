import gradprobe as gp

problem = gp.load_problem(checkpoint="trained", batch_size=8)
ds = gp.probe(
    problem, ["lr", "alr", "es"], copies=100, seeds=5, reference=["bp", "smoothed"], reference_copies=16
)
