pytest_plugins = [
    "tests.services",
    "tests.databases",
    "tests.dumps",
    "tests.apps",
    "tests.processes",
    "tests.command_line",
    "tests.read_model",
    "tests.histories",
    "muster_subscriber.plugin",
    "tests.example_topics",
]
