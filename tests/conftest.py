pytest_plugins = ["tests.services", "tests.databases", "tests.apps", "tests.processes", "tests.read_model"]
