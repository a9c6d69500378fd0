CREATE OR REPLACE FUNCTION identity.delay(failures integer, free integer, longest integer) RETURNS interval
LANGUAGE sql IMMUTABLE
RETURN make_interval(secs => CASE WHEN failures < free THEN 0 ELSE least(longest, 2.0 ^ least(failures - free, 20)) END);

-- Admits or refuses a try of a password.
--
-- pair, account, address: keys of the account as tried from this address, of the account, of the address.
-- admitted: whether this try may be made; a refused one was not counted.
-- wait: the seconds until this address may try this account again.
-- remaining: tries that are left before the next delay.
--
-- An admitted try counts as a failure until identity.forgive is called: tries that run side by side count too. A refused
-- one changes nothing, so whoever keeps knocking makes nobody wait longer. Only addresses that have failed themselves
-- wait: the right owner gets in at once from any other one, however many guess.
CREATE OR REPLACE FUNCTION identity.attempt(
    pair bytea, account bytea, address bytea, pair_free integer, address_free integer)
RETURNS TABLE (admitted boolean, wait double precision, remaining integer)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    -- an account that this many failures came upon from anywhere gives each address one try in a long while
    account_free CONSTANT integer := 100;
    usual CONSTANT integer := 60;
    besieged CONSTANT integer := 900;
    stamp timestamptz;
    paired integer;
    failed integer;
    from_there integer;
    allowed_at timestamptz;
    pair_delay interval;
    address_delay interval;
BEGIN
    -- before any row is made: an address that must wait would fill the table with accounts that it makes up
    stamp := clock_timestamp();
    SELECT max(g.next_at) INTO allowed_at FROM identity.guesses g WHERE g.key IN (pair, address);
    IF allowed_at > stamp THEN
        RETURN QUERY SELECT false, extract(epoch FROM allowed_at - stamp)::double precision, 0;
        RETURN;
    END IF;

    INSERT INTO identity.guesses (key, failures, next_at, last_at)
    SELECT wanted.key, 0, 'epoch', clock_timestamp() FROM unnest(ARRAY[pair, account, address]) AS wanted (key)
    ORDER BY wanted.key
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM identity.guesses g WHERE g.key IN (pair, account, address) ORDER BY g.key FOR UPDATE;
    stamp := clock_timestamp();

    SELECT max(g.next_at) FILTER (WHERE g.key <> account),
        coalesce(max(g.failures) FILTER (WHERE g.key = pair AND g.last_at > stamp - interval '1 day'), 0),
        coalesce(max(g.failures) FILTER (WHERE g.key = account AND g.last_at > stamp - interval '1 day'), 0),
        coalesce(max(g.failures) FILTER (WHERE g.key = address AND g.last_at > stamp - interval '1 day'), 0)
    INTO allowed_at, paired, failed, from_there
    FROM identity.guesses g WHERE g.key IN (pair, account, address);

    IF allowed_at > stamp THEN
        RETURN QUERY SELECT false, extract(epoch FROM allowed_at - stamp)::double precision, 0;
        RETURN;
    END IF;

    pair_delay := greatest(
        identity.delay(paired + 1, pair_free, usual), identity.delay(failed + 1, account_free, besieged));
    address_delay := identity.delay(from_there + 1, address_free, usual);
    UPDATE identity.guesses g SET last_at = stamp,
        failures = 1 + CASE g.key WHEN pair THEN paired WHEN account THEN failed ELSE from_there END,
        next_at = stamp + CASE g.key WHEN pair THEN pair_delay WHEN account THEN interval '0' ELSE address_delay END
    WHERE g.key IN (pair, account, address);
    RETURN QUERY SELECT true, extract(epoch FROM greatest(pair_delay, address_delay))::double precision,
        greatest(0, least(pair_free - paired, address_free - from_there, account_free - failed) - 1);
END
$$;

-- Takes back the failure that an attempt counted, for who gave the right password.
CREATE OR REPLACE FUNCTION identity.forgive(pair bytea, account bytea, address bytea) RETURNS void
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM 1 FROM identity.guesses g WHERE g.key IN (pair, account, address) ORDER BY g.key FOR UPDATE;
    DELETE FROM identity.guesses g WHERE g.key IN (pair, account);
    -- an address's other failures stay: an account of one's own is no way to be allowed more guesses at others'
    UPDATE identity.guesses g SET failures = greatest(g.failures - 1, 0), next_at = clock_timestamp()
    WHERE g.key = address;
END
$$;
