from shlex import quote

from muster.running import RunningStack


def welcome(stack: RunningStack) -> str:
    """Say where a stack is, how to log in, and how to write a user and read it back, in lines that work when pasted."""
    return f"""
  Command API   {stack.command_url}/docs
  Query API     {stack.query_url}/docs
  Kafka         {stack.kafka_bootstrap_servers}
  Admin         {stack.admin_email}, the password is in {stack.admin_password_file}

Log in as it (the token below is one; `.venv/bin/muster token` prints another):

  curl -sS {stack.command_url}/login -d username={stack.admin_email} \\
    --data-urlencode "password=$(cat {quote(stack.admin_password_file)})"

Create a user, and read it back at once:

  TOKEN={stack.token or "$(.venv/bin/muster token --email YOU@example.com)"}
  ANSWER=$(curl -sSi {stack.command_url}/users -H "Authorization: Bearer $TOKEN" \\
    -H 'Content-Type: application/json' \\
    -d '{{"email": "ada.'$(date +%s)'@example.com", "display_name": "Ada Lovelace"}}'); echo "$ANSWER"
  ID=$(echo "$ANSWER" | sed -n 's/.*"id": *"\\([^"]*\\)".*/\\1/p')
  POSITION=$(echo "$ANSWER" | tr -d '\\r' | sed -n 's/^event-position: //Ip')
  curl -sSi {stack.query_url}/users/$ID -H "Authorization: Bearer $TOKEN" \\
    -H "Min-Position: $POSITION" -H 'Prefer: wait=5'

Ctrl-C stops everything; the data is kept. `make demo` tells the whole story.
"""
