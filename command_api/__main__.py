from command_api.app import create_app
from events.partitioning import check_partitions_setting
from runtime.serving import run_process

run_process("command-api", create_app, lambda settings: settings.command_port, check_partitions_setting)
