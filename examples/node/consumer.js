// Keep a table of users from Muster's two topics, and print it at the end. ../README.md says what happens when.
import { randomUUID } from 'node:crypto'
import { Consumer, ListOffsetTimestamps, MessagesStreamModes, stringDeserializer } from '@platformatic/kafka'

const KNOWN = ['muster.UserCreated', 'muster.UserUpdated', 'muster.UserDeleted']

// by id: { version, user }, of which user is null when they are gone
const users = new Map()
const stop = new AbortController()

// Undefined: of a type that is not known here. Throws for what is no event.
function eventOf ({ key, value, headers }) {
  const kind = headers.get('ce_type')?.replace(/\.v\d+$/, '') // without the schema's version: a new one adds fields
  const version = Number(headers.get('ce_userversion'))
  if (kind && value && !KNOWN.includes(kind)) return undefined
  if (!kind || !key || !Number.isInteger(version)) throw new Error('no ce_type, ce_userversion or key')
  if (!value) return { version, user: null }
  const { user } = JSON.parse(value)
  if (!user) throw new Error('no user')
  return { version, user: kind === 'muster.UserDeleted' ? null : user }
}

// Take what is newer. `complete`: of a topic with every version, so that one left out is worth a word.
function apply (id, { version, user }, complete) {
  const held = users.get(id) ?? { version: 0, user: null }
  const takesAway = !user || user.erased
  // what takes away counts at the version held, too: a user is erased without a new version
  if (version < held.version || (version === held.version && !(takesAway && held.user))) return
  if (complete && version > held.version + 1) {
    console.error(`gap: user ${id} goes from version ${held.version} to ${version}`)
  }
  users.set(id, { version, user }) // of who is gone too: their version stays, so that nothing older brings them back
}

// Apply a topic from its beginning, until a signal says stop or, with `toEnd`, where it ends now.
async function read (consumer, topic, { toEnd, complete }) {
  const ends = (await consumer.listOffsets({ topics: [topic], timestamp: ListOffsetTimestamps.LATEST })).get(topic)
  const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST })
  const close = () => stream.close()
  stop.signal.addEventListener('abort', close)
  // by what was fetched, not by records: compaction may have removed those that stood last
  const atEnd = () => ends.every((end, partition) => stream.offsetsToFetch.get(`${topic}:${partition}`) >= end)
  if (toEnd) stream.on('fetch', () => { if (atEnd() && stream.readableLength === 0) close() })
  if (stop.signal.aborted) close()
  for await (const record of stream) {
    try {
      const event = eventOf(record)
      if (event) apply(record.key, event, complete)
    } catch (error) {
      console.error(`passed over ${topic}-${record.partition}@${record.offset}: ${error.message}`)
    }
    if (stop.signal.aborted) break
  }
  stop.signal.removeEventListener('abort', close)
}

// As in PostgreSQL's COPY: \N is null; a tab, a line's end and a backslash are escaped with a backslash.
const ESCAPES = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' }
const text = (value) => value == null ? '\\N' : value.replace(/[\\\t\n\r]/g, (found) => ESCAPES[found])

const environment = process.env
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop.abort())
const consumer = new Consumer({
  clientId: 'muster-example',
  // a group of its own: the table is in memory, so each start reads from the beginning, and commits nothing
  groupId: `muster-example-${randomUUID()}`,
  bootstrapBrokers: (environment.KAFKA_BOOTSTRAP_SERVERS ?? '127.0.0.1:9092').split(','),
  deserializers: { key: stringDeserializer, headerKey: stringDeserializer, headerValue: stringDeserializer },
  autocommit: false,
  maxWaitTime: 500
})
// the compacted topic first: it has everybody, however old; then each event, of which those known are skipped
await read(consumer, environment.SNAPSHOT_TOPIC ?? 'users.snapshot.v1', { toEnd: true, complete: false })
if (!stop.signal.aborted) {
  const toEnd = environment.UNTIL_END === '1'
  await read(consumer, environment.EVENTS_TOPIC ?? 'users.events.v1', { toEnd, complete: true })
}
await consumer.close(true)
for (const id of [...users.keys()].sort()) {
  const { version, user } = users.get(id)
  if (user) console.log([id, version, text(user.status), text(user.email), text(user.display_name)].join('\t'))
}
