from events.partitioning import check_partitions_setting
from projector.app import create_app
from runtime.serving import run_process

run_process("projector", create_app, lambda settings: settings.projector_port, check_partitions_setting)
