from events.fitting import check_fitting
from query_api.app import create_app
from runtime.serving import run_process

run_process("query-api", create_app, lambda settings: settings.query_port, check_fitting)
