from command_api.app import create_app
from events.fitting import check_writer_fitting
from runtime.serving import run_process

run_process("command-api", create_app, lambda settings: settings.command_port, check_writer_fitting)
