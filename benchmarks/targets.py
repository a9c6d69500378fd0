"""The goals, one section each, by the names that the scripts give to what they measure."""

from goals import Either, Flat, Latency, Named, Rate, Ratio, Section

WRITES, LOG, READS, FRESH = "write_path", "log_path", "read_path", "freshness_at_rate"
WRITERS = (
    "The guide's app stands still at 256 connections (`rivals/crud_guide.py` says why): what Muster does there is"
    " compared with the app's rate at 32. A command API hashes passwords on one core fewer than there are, unless"
    " HASHING_THREADS says otherwise: the other is for whoever asks for something else. Relay and integrator run in a"
    " process of their own (`RELAY=false` and `muster relay`), as docs/performance.md advises."
)
PAGES = (
    "A page is held against a bare GET of one record, and shown beside a bare page of the same size: bare FastAPI makes"
    ' both of constants. Requests for the same list that wait at the same moment share one query: those of "another'
    ' each" ask for other pages, and share none. "Changed last first" walks a table of its own, which spares each'
    " change the entries of all indexes, and looks up each user on the way: one in a hundred is an admin."
)
BARE_GET = "bare GET by id, 32 connections"
PAGES_READ = (
    "first page of 50, 32 connections",
    "page of admins, 32 connections",
    "page of admins, changed last first, 32 connections",
)
HASHED = "create with a password, 32 connections"

SECTIONS = (
    Section(
        title="1. Writes over HTTP, everything on",
        scripts=[WRITES],
        remark=WRITERS,
        checks=[
            *(
                check
                for kind in ("update", "create")
                for connections in (32, 256)
                for check in (
                    Ratio(
                        script=WRITES,
                        of=f"{kind}, {connections} connections",
                        to=f"guide {kind}, 32 connections",
                        at_least=12,
                    ),
                    Ratio(
                        script=WRITES,
                        of=f"{kind}, {connections} connections",
                        to=f"bare {kind}, {connections} connections",
                        at_least=0.6,
                    ),
                )
            ),
            *(
                Latency(script=WRITES, of=f"{kind}, 32 connections", quantile="p99", at_most=25)
                for kind in ("update", "create")
            ),
            Ratio(script=WRITES, of=HASHED, to="argon2id alone, all cores", at_least=0.9),
            Ratio(script=WRITES, of=HASHED, to="argon2id alone, threads of a command API"),
            Ratio(
                script=WRITES,
                of=f"{HASHED}, HASHING_THREADS of all cores",
                to="argon2id alone, all cores",
                at_least=0.9,
            ),
        ],
    ),
    Section(
        title="2. The log",
        scripts=[LOG],
        checks=[
            Ratio(script=LOG, of=f"log alone, {kind}, {callers} callers", to=rival, at_least=at_least)
            for kind in ("update", "create")
            for callers, beside_pgbench in ((64, 1.5), (1000, 2.0))
            for rival, at_least in (
                ("pgbench, 16 clients", beside_pgbench),
                ("library eventsourcing, 16 threads", 12.0),
                ("library eventsourcing, 16 threads, SQL functions", None),
            )
        ],
    ),
    Section(
        title="3. Reads over HTTP, a million users",
        scripts=[READS],
        remark=PAGES,
        checks=[
            Ratio(script=READS, of="GET by id, 32 connections", to=BARE_GET, at_least=0.8),
            Ratio(script=READS, of="GET by id, 256 connections", to="bare GET by id, 256 connections", at_least=0.8),
            Ratio(script=READS, of="GET by id, 32 connections", to="guide GET by id, 32 connections", at_least=15),
            *(
                check
                for page in PAGES_READ
                for check in (
                    Ratio(script=READS, of=page, to=BARE_GET, at_least=0.25),
                    Ratio(script=READS, of=page, to="bare page of 50, 32 connections"),
                    Ratio(script=READS, of=page, to=f"guide {page}"),
                )
            ),
            Ratio(script=READS, of="page of 50, another each, 32", to=BARE_GET, at_least=0.25),
            Ratio(script=READS, of="page of 50, another each, 32", to="bare page of 50, 32 connections"),
            *(
                Latency(script=READS, of=name, quantile="p99", at_most=15)
                for name in ("GET by id, 32 connections", *PAGES_READ)
            ),
        ],
    ),
    Section(
        title="4. The projector, a million rows",
        scripts=["projecting"],
        remark="What PostgreSQL has collected for the GIN indexes (roles, and the trigrams of `q`) is merged on another"
        " connection meanwhile.",
        checks=[
            Rate(script="projecting", of="from the topic", at_least=25_000),
            Ratio(script="projecting", of="from the topic", to="library eventsourcing's runner", at_least=30),
            Rate(script="projecting", of="from the log", at_least=40_000),
        ],
    ),
    Section(
        title="5. The relay",
        scripts=["relaying"],
        checks=[
            Either(
                [
                    Rate(script="relaying", of="relay", at_least=30_000),
                    Ratio(script="relaying", of="relay", to="aiokafka, send", at_least=0.7),
                ]
            ),
            Ratio(script="relaying", of="relay", to="aiokafka, send_batch"),
        ],
    ),
    Section(
        title="6. Freshness, 500 writes a second",
        scripts=[FRESH],
        checks=[
            Latency(script=FRESH, of="  from its answer to readable", quantile="p50", at_most=25),
            Latency(script=FRESH, of="  from its answer to readable", quantile="p99", at_most=75),
            Latency(script=FRESH, of="  from POST to a consumer", quantile="p99", at_most=40),
        ],
    ),
    Section(
        title="7. Growth, from 100,000 to 10 million events, and memory over minutes of full load",
        scripts=["growth", "steady"],
        checks=[Named(script="growth", at_most=1.5), Flat(script="steady", share=0.02, mib=1)],
        remark="A ratio is what an operation costs with the big log over what it costs with the small one. PostgreSQL's"
        " shared buffers are not counted: it may take 2 GB, which fill as pages are read for the first time.",
    ),
    Section(title="8. Two processes of each API", scripts=["scaling"], checks=[Named(script="scaling")]),
)
