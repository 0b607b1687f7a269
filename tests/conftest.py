from hypothesis import settings

# The same examples in every run, however slow the machine.
settings.register_profile("sc_glm", deadline=None, derandomize=True)
settings.load_profile("sc_glm")
