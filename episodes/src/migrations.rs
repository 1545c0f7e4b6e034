//! The tables, as the steps that made them.

/// `MIGRATIONS[n]` brings a store from version n to n + 1; `PRAGMA user_version` says where a store stands. A step that
/// has been released never changes.
pub(crate) const MIGRATIONS: [&str; 4] = [EPISODES, EXPERIMENTS, JUDGE_BOOKS, LABELS_AND_ERASURES];

/// The key is (tenant, id), not the id alone: whether a write of one tenant succeeds never depends on another tenant.
/// Ids are time-ordered, so the same key serves lists by time. Retention reads `by_time`.
const EPISODES: &str = "
    CREATE TABLE episodes (
        tenant          TEXT    NOT NULL,
        id              BLOB    NOT NULL,
        created_ms      INTEGER NOT NULL,
        record_version  INTEGER NOT NULL,
        policy          TEXT    NOT NULL,
        degraded        INTEGER NOT NULL,
        user_id         TEXT,
        conversation_id TEXT,
        body            TEXT    NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT;
    CREATE INDEX episodes_by_time ON episodes (created_ms);
    CREATE INDEX episodes_by_policy ON episodes (tenant, policy, id);
    CREATE INDEX episodes_degraded ON episodes (tenant, id) WHERE degraded = 1;
";

/// Everything that hangs on an episode goes with it, whoever deletes it: that is what the trigger is for. Feedback has
/// no foreign key because it may come before its episode.
///
/// `episodes_by_experiment` holds all that the counts of an experiment need: the new columns lie behind the body, and
/// reading them from the table would read the body, too. Episodes outside an experiment are not in it.
const EXPERIMENTS: &str = "
    ALTER TABLE episodes ADD COLUMN experiment TEXT;
    ALTER TABLE episodes ADD COLUMN experiment_version INTEGER;
    ALTER TABLE episodes ADD COLUMN arm TEXT;
    CREATE INDEX episodes_by_experiment
        ON episodes (tenant, experiment, id, experiment_version, arm, degraded) WHERE experiment IS NOT NULL;

    CREATE TABLE shadow_runs (
        tenant          TEXT    NOT NULL,
        episode         BLOB    NOT NULL,
        experiment      TEXT    NOT NULL,
        version         INTEGER NOT NULL,
        kind            TEXT    NOT NULL,
        arm             TEXT    NOT NULL,
        sampled_ms      INTEGER NOT NULL,
        state           TEXT    NOT NULL
            CHECK (state IN ('pending', 'completed', 'failed', 'timed_out', 'dropped')),
        reason          TEXT    NOT NULL,
        record_version  INTEGER NOT NULL,
        answer          TEXT,
        PRIMARY KEY (tenant, episode, experiment, version, kind, arm),
        CHECK ((state = 'completed') = (answer IS NOT NULL))
    ) STRICT;
    CREATE INDEX shadow_by_episode ON shadow_runs (tenant, experiment, episode, version, kind, arm);
    CREATE INDEX shadow_by_outcome ON shadow_runs (tenant, experiment, version, arm, kind, state, reason);
    CREATE INDEX shadow_pending ON shadow_runs (tenant) WHERE state = 'pending';

    CREATE TABLE experiments (
        id              TEXT    NOT NULL,
        version         INTEGER NOT NULL,
        definition      TEXT    NOT NULL,
        created_ms      INTEGER NOT NULL,
        author          TEXT    NOT NULL,
        note            TEXT    NOT NULL,
        PRIMARY KEY (id, version)
    ) STRICT;

    CREATE TABLE feedback (
        tenant          TEXT    NOT NULL,
        id              BLOB    NOT NULL,
        episode         BLOB    NOT NULL,
        created_ms      INTEGER NOT NULL,
        deferred        INTEGER NOT NULL,
        signal          TEXT    NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT;
    CREATE INDEX feedback_by_episode ON feedback (tenant, episode, created_ms);
    CREATE INDEX feedback_deferred ON feedback (created_ms) WHERE deferred = 1;

    CREATE TABLE verdicts (
        tenant          TEXT    NOT NULL,
        episode         BLOB    NOT NULL,
        side            TEXT    NOT NULL,
        judge           TEXT    NOT NULL,
        prompt_version  TEXT    NOT NULL,
        schema_version  INTEGER NOT NULL,
        key             BLOB    NOT NULL,
        state           TEXT    NOT NULL CHECK (state IN ('scored', 'missing')),
        scores          TEXT,
        reason          TEXT    NOT NULL,
        raw             TEXT    NOT NULL,
        created_ms      INTEGER NOT NULL,
        PRIMARY KEY (tenant, key, episode, side),
        CHECK ((state = 'scored') = (scores IS NOT NULL))
    ) STRICT;
    CREATE INDEX verdicts_by_episode ON verdicts (tenant, episode, side);

    CREATE TABLE rewards (
        tenant          TEXT    NOT NULL,
        episode         BLOB    NOT NULL,
        side            TEXT    NOT NULL,
        reward_version  INTEGER NOT NULL,
        weights_hash    TEXT    NOT NULL,
        parts           TEXT    NOT NULL,
        created_ms      INTEGER NOT NULL,
        PRIMARY KEY (tenant, episode, side, weights_hash)
    ) STRICT;

    CREATE TRIGGER episode_deleted AFTER DELETE ON episodes BEGIN
        DELETE FROM shadow_runs WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM feedback WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM verdicts WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM rewards WHERE tenant = old.tenant AND episode = old.id;
    END;
";

/// Replies belong to questions and not to episodes: the same question of a later episode has the same reply. Retention
/// and the bound in bytes read `by_time`.
const JUDGE_BOOKS: &str = "
    CREATE TABLE judge_replies (
        tenant          TEXT    NOT NULL,
        key             BLOB    NOT NULL,
        judge           TEXT    NOT NULL,
        reply           TEXT    NOT NULL,
        created_ms      INTEGER NOT NULL,
        PRIMARY KEY (tenant, key)
    ) STRICT;
    CREATE INDEX judge_replies_by_time ON judge_replies (created_ms);

    CREATE TABLE judge_costs (
        tenant          TEXT    NOT NULL,
        day             INTEGER NOT NULL,
        cost            REAL    NOT NULL,
        PRIMARY KEY (tenant, day)
    ) STRICT;
";

/// What people wrote down about an answer goes with its episode, as everything else that hangs on one. What stays of an
/// erased episode is its id, for those who hold copies.
const LABELS_AND_ERASURES: &str = "
    CREATE TABLE labels (
        tenant          TEXT    NOT NULL,
        episode         BLOB    NOT NULL,
        author          TEXT    NOT NULL,
        kind            TEXT    NOT NULL CHECK (kind IN ('gold_rewrite', 'relevant', 'score', 'label')),
        value           TEXT    NOT NULL,
        created_ms      INTEGER NOT NULL,
        PRIMARY KEY (tenant, episode, author, kind)
    ) STRICT;

    CREATE TABLE erasures (
        tenant          TEXT    NOT NULL,
        episode         BLOB    NOT NULL,
        erased_ms       INTEGER NOT NULL,
        PRIMARY KEY (tenant, episode)
    ) STRICT;
    CREATE INDEX erasures_by_time ON erasures (tenant, erased_ms);

    DROP TRIGGER episode_deleted;
    CREATE TRIGGER episode_deleted AFTER DELETE ON episodes BEGIN
        DELETE FROM shadow_runs WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM feedback WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM verdicts WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM rewards WHERE tenant = old.tenant AND episode = old.id;
        DELETE FROM labels WHERE tenant = old.tenant AND episode = old.id;
    END;
";
