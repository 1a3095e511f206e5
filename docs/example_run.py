import gradprobe as gp

problem = gp.load_problem(checkpoint="trained", batch_size=8)
references = ["bp", "smoothed"]
ds = gp.probe(
    problem, ["lr", "alr", "es"], copies=100, block=5, seeds=5, reference=references, reference_copies=16
)
