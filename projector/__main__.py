from events.fitting import check_fitting
from projector.app import create_app
from runtime.serving import run_process

run_process("projector", create_app, lambda settings: settings.projector_port, check_fitting)
