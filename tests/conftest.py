import torch
from hypothesis import settings

# The same examples in every run, however slow the machine.
settings.register_profile("sc_glm", deadline=None, derandomize=True)
settings.load_profile("sc_glm")

# Tests run side by side; threads inside small operations would only get in each other's way.
torch.set_num_threads(1)
