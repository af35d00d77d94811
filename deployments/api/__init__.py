"""The wire: bodies into requests, outcomes into answers, errors into statuses, and the routes. The same service
stands behind HTTP and handle calls.
"""
