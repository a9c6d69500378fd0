from command_api.app import create_app
from runtime.serving import run_process

run_process("command-api", create_app, lambda settings: settings.command_port)
