from events.partitioning import check_partitions_setting
from query_api.app import create_app
from runtime.serving import run_process

run_process("query-api", create_app, lambda settings: settings.query_port, check_partitions_setting)
