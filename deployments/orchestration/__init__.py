"""A request from admission to answer: the route, its budget, its steps on workers, the checks of its pictures, and
what is remembered of it. Knows neither Ray nor torch.
"""
