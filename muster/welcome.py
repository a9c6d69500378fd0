from muster.running import RunningStack


def welcome(stack: RunningStack) -> str:
    """Say where a stack is, and how to write a user and read it back, in lines that work when pasted."""
    return f"""
  Command API   {stack.command_url}/docs
  Query API     {stack.query_url}/docs
  Token         {stack.token}
  Kafka         {stack.kafka_bootstrap_servers}

Create a user, and read it back at once:

  TOKEN={stack.token}
  ANSWER=$(curl -sSi {stack.command_url}/users -H "Authorization: Bearer $TOKEN" \\
    -H 'Content-Type: application/json' \\
    -d '{{"email": "ada.'$(date +%s)'@example.com", "display_name": "Ada Lovelace"}}'); echo "$ANSWER"
  ID=$(echo "$ANSWER" | sed -n 's/.*"id": *"\\([^"]*\\)".*/\\1/p')
  POSITION=$(echo "$ANSWER" | tr -d '\\r' | sed -n 's/^event-position: //Ip')
  curl -sSi {stack.query_url}/users/$ID -H "Authorization: Bearer $TOKEN" \\
    -H "Min-Position: $POSITION" -H 'Prefer: wait=5'

Ctrl-C stops everything; the data is kept. `make demo` tells the whole story.
"""
