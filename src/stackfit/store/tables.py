"""The tables of a database: docs/store.md describes them for people who use `sqlite3`.

Tables and columns are added to a version, never removed or changed.
"""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "SCHEMA", "SCHEMA_VERSION", "TABLES", "VIEWS"]

SCHEMA = "stackfit.store/1"
SCHEMA_VERSION = 1  # PRAGMA user_version
APPLICATION_ID = 0x73666974  # "sfit", PRAGMA application_id

TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE images (
    image INTEGER PRIMARY KEY, module TEXT, path TEXT, machine TEXT, release TEXT, build_id TEXT, names TEXT);
CREATE TABLE warnings (warning INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE assumptions (
    assumption INTEGER PRIMARY KEY, kind TEXT, name TEXT, subject TEXT, reason TEXT, source TEXT);
CREATE TABLE functions (
    function INTEGER PRIMARY KEY, image INTEGER REFERENCES images, name TEXT, part_of TEXT,
    address INTEGER, size INTEGER, frame INTEGER, compiler_frame INTEGER, dynamic TEXT,
    reached INTEGER, unreached INTEGER, recursive INTEGER, instructions TEXT);
CREATE TABLE aliases (
    function INTEGER REFERENCES functions, name TEXT, PRIMARY KEY (function, name)) WITHOUT ROWID;
CREATE TABLE sites (
    site INTEGER PRIMARY KEY, function INTEGER REFERENCES functions, address INTEGER, return_address INTEGER,
    depth INTEGER, kind TEXT, rung TEXT, evidence TEXT, candidates INTEGER, reason TEXT, place TEXT,
    charge INTEGER, assumption TEXT);
CREATE TABLE candidates (
    candidates INTEGER, function INTEGER REFERENCES functions,
    PRIMARY KEY (candidates, function)) WITHOUT ROWID;
CREATE TABLE chain_frames (
    chain INTEGER, position INTEGER, function INTEGER REFERENCES functions, name TEXT, module TEXT,
    address INTEGER, depth INTEGER, total INTEGER, kind TEXT, rung TEXT, evidence TEXT,
    PRIMARY KEY (chain, position)) WITHOUT ROWID;
CREATE TABLE layouts (layout INTEGER PRIMARY KEY, name TEXT, hypothetical INTEGER);
CREATE TABLE stacks (
    stack INTEGER PRIMARY KEY, layout INTEGER REFERENCES layouts, name TEXT, size INTEGER, per TEXT,
    allocation TEXT, measured INTEGER, measured_by TEXT, composed INTEGER, direct INTEGER, found INTEGER,
    bound INTEGER, headroom INTEGER, fits_hops INTEGER, open INTEGER, hypothetical INTEGER, verdict TEXT,
    why TEXT, context TEXT, chain INTEGER);
CREATE TABLE stack_hops (
    stack INTEGER REFERENCES stacks, hops INTEGER, bytes INTEGER,
    PRIMARY KEY (stack, hops)) WITHOUT ROWID;
CREATE TABLE stack_parts (
    stack INTEGER REFERENCES stacks, position INTEGER, name TEXT, bytes INTEGER, found INTEGER, times INTEGER,
    source TEXT, PRIMARY KEY (stack, position)) WITHOUT ROWID;
CREATE TABLE stack_open (
    stack INTEGER REFERENCES stacks, reason TEXT, count INTEGER,
    PRIMARY KEY (stack, reason)) WITHOUT ROWID;
CREATE TABLE stack_assumed (
    stack INTEGER REFERENCES stacks, position INTEGER, text TEXT,
    PRIMARY KEY (stack, position)) WITHOUT ROWID;
CREATE TABLE contexts (
    context INTEGER PRIMARY KEY, layout INTEGER REFERENCES layouts, stack TEXT, kind TEXT, name TEXT,
    abi TEXT, number INTEGER, entry INTEGER REFERENCES functions, entry_bytes INTEGER, measured INTEGER,
    composed INTEGER, direct INTEGER, found INTEGER, bound INTEGER, open INTEGER, chain INTEGER);
CREATE TABLE context_hops (
    context INTEGER REFERENCES contexts, hops INTEGER, bytes INTEGER,
    PRIMARY KEY (context, hops)) WITHOUT ROWID;
CREATE TABLE context_open (
    context INTEGER REFERENCES contexts, reason TEXT, count INTEGER,
    PRIMARY KEY (context, reason)) WITHOUT ROWID;
"""

# Made after the rows are in.
VIEWS = """
CREATE INDEX functions_by_name ON functions (name);
CREATE INDEX sites_by_function ON sites (function);
CREATE VIEW frames AS
    SELECT f.name, i.module, f.frame, f.compiler_frame, f.dynamic, printf('%x', f.address) AS address,
        f.function
    FROM functions f JOIN images i USING (image);
CREATE VIEW edges AS
    SELECT s.site, s.function AS caller, c.function AS callee, s.depth, s.kind, s.rung, s.evidence
    FROM sites s JOIN candidates c USING (candidates);
CREATE VIEW open_sites AS
    SELECT f.name, i.module, printf('%x', s.address) AS address, s.depth, s.kind, s.reason, s.place, s.site
    FROM sites s JOIN functions f USING (function) JOIN images i USING (image) WHERE s.reason IS NOT NULL;
"""
