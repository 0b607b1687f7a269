"""
How does it fit into scikit-learn?
==================================
"""
