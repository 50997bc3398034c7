"""What a first load and a run without changes cost: `make bench`.

| module    | what it is                                                                     | its process          |
|-----------|--------------------------------------------------------------------------------|----------------------|
| remote    | a Dataverse server that gives each page from memory; imports nothing of the hub | its own              |
| sink      | a table service that answers at once and forgets records; the same             | its own              |
| worker    | the hub's own pull, over HTTP to both, measured                                | its own, for each row |
| bare      | the same pages and the same bytes through the same writer, and nothing between | its own, for each row |
| imports   | what the app's import costs                                                    | fresh ones           |
| counts    | `counts.json`: calls with fixed ids, compared                                  | the command's        |
| rows      | starts the parts, runs the rows                                                | the command's        |
"""
