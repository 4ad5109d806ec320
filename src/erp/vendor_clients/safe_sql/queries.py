"""Whether a text is one query (or one change of rows) of allowed tables and functions, for engines that run it as it is.

Two readers that share nothing have to agree: sqlglot says what the statement is and which tables it names; the
engine's lexis says what is called, so that no function hides behind a construct that the parser takes for something
else. The engine's own barrier (a read-only transaction, a role) stands underneath.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sqlglot import Dialect, exp
from sqlglot.tokenizer_core import TokenType

from erp.vendor_clients.safe_sql.statements import tree_of
from erp.vendor_clients.sql.lexis import Kind, Lexis, Token, refusal
from erp.vendor_clients.sql.placeholders import Placed, Style, placed

CACHED = 1000
_READING = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values)
_CHANGING = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
_EFFECTS = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Pragma, exp.Set, exp.Transaction, exp.Commit,
            exp.Rollback, exp.Attach, exp.Detach, exp.Copy, exp.Use, exp.Kill, exp.Execute,
            exp.SessionParameter, exp.Analyze, exp.Describe, exp.Show, exp.Cache, exp.Uncache, exp.Refresh,
            exp.LoadData, exp.Merge, exp.Put, exp.Get, exp.Export)  # fmt: skip
_SYNTAX = """
select distinct all from where and or not in exists any some as on using having by over filter group order partition within
grouping sets rollup cube when then else case end between is like ilike similar escape union intersect except limit offset
fetch first next values row array with materialized lateral join interval at zone returning of rows range groups table only
collate isnull notnull overlaps symmetric unique preceding following current ties no others exclude recursive ordinality
qualify pivot unpivot for respect nulls unnest conflict set do into insert matched
"""
SYNTAX = frozenset(_SYNTAX.split())
"""Words before an opening parenthesis that call nothing."""
_TYPES = """
bit varbit char character nchar varchar nvarchar varying decimal dec numeric number float real double precision int integer
bigint smallint time timestamp timestamptz timetz text binary varbinary datetime datetime2 datetimeoffset string
"""
TYPES = frozenset(_TYPES.split())
"""Types that take a length or precision."""
_PLAIN = re.compile(r"\w+")
Named = tuple[str, str]
"""Schema and name of a table, as the engine has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What queries may do. A new one is a new object, so nothing that an older one allowed is remembered."""

    dialect: str
    lexis: Lexis
    functions: Collection[str]
    """In lower case; all others are refused, typed by the parser or not."""
    default_schemas: Sequence[str] = ()
    """Where a table without a schema is looked for, in this order."""
    tables: Collection[Named] | None = None
    """Only these; None: all but those of ``hidden_schemas`` and with ``hidden_prefixes``."""
    hidden_schemas: Collection[str] = frozenset({"information_schema", "pg_catalog", "pg_toast", "sys", "mysql",
                                                 "performance_schema", "account_usage"})  # fmt: skip
    hidden_prefixes: Sequence[str] = ("pg_", "erp_")
    """Of names: of a schema, or of a table without one."""
    folds_upper: bool = False
    """Whether names without quotes become upper case."""
    has_file_tables: bool = False
    """Whether the engine takes a table's name that is no word for a file."""
    allowed_catalog: str | None = None
    """The one database that may be named before a schema."""


@dataclass(slots=True)
class Queries:
    """Judges statements by a policy, each text once."""

    policy: Policy
    style: Style
    _known: OrderedDict[tuple[str, bool], Placed] = field(default_factory=OrderedDict, repr=False)

    def checked(self, sql: str, *, writes: bool = False) -> Placed:
        """Return ``sql`` with the driver's placeholders; with ``writes`` it may also be one change of rows.

        Raises:
            ProviderError: ``invalid_argument`` naming what is not allowed.
        """
        key = (sql, writes)
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        made = placed(sql, self.policy.lexis, self.style)
        check(made, sql, self.policy, writes=writes)
        self._known[key] = made
        if len(self._known) > CACHED:
            self._known.popitem(last=False)
        return made


def check(made: Placed, sql: str, policy: Policy, *, writes: bool = False) -> None:
    """Refuse all but one statement of what the policy allows.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    text = _for_parser(sql, made)
    tree = tree_of(text, policy.dialect)
    if writes and not isinstance(tree, (*_READING, *_CHANGING)):
        raise refusal("The statement is not allowed here.", "must be one SELECT, INSERT, UPDATE, DELETE or MERGE")
    if not writes and not isinstance(tree, _READING):
        raise refusal("A query can only read. Use execute to change something.", "must be one SELECT")
    _check_quotes(text, policy)
    for node in tree.walk():
        if isinstance(node, _EFFECTS) and not isinstance(node, exp.Query) and not _is_expected(node, tree):
            raise refusal("The statement does what is not allowed here.", f"has {node.key.upper()} inside")
    for table in tree.find_all(exp.Table):
        _check_table(table, policy)
    _check_calls(made.tokens, tree, policy)
    _check_words(made.tokens, is_insert=isinstance(tree, exp.Insert | exp.Merge))


def _is_expected(node: exp.Expr, tree: exp.Expr) -> bool:
    """Whether it is the statement itself, or what a MERGE or an upsert does."""
    return node is tree or (isinstance(node, _CHANGING) and isinstance(node.parent, exp.When))


def _for_parser(sql: str, made: Placed) -> str:
    """The same text with a value for each placeholder, so that no spelling of placeholders is read two ways."""
    parts: list[str] = []
    place = 0
    for token in made.tokens:
        if token.kind is Kind.PLACEHOLDER:
            text = " NULL "
        elif token.text == "??":
            text = "?"
        else:
            continue
        parts += [sql[place : token.start], text]
        place = token.end
    return "".join([*parts, sql[place:]])


_START = Token(Kind.WORD, "", 0, 0)
_NEVER = frozenset({"into", "outfile", "dumpfile"})
_QUOTED = frozenset({TokenType.STRING, TokenType.NATIONAL_STRING, TokenType.RAW_STRING, TokenType.HEREDOC_STRING,
                     TokenType.BYTE_STRING, TokenType.HEX_STRING, TokenType.BIT_STRING, TokenType.UNICODE_STRING,
                     TokenType.IDENTIFIER})  # fmt: skip


def _check_words(tokens: Sequence[Token], *, is_insert: bool) -> None:
    """Refuse words that only statements with an effect have, wherever the parser has put them."""
    for before, token in pairwise([_START, *tokens]):
        is_target = is_insert and token.folded == "into" and before.folded in {"insert", "merge"}
        if token.kind is Kind.WORD and token.folded in _NEVER and not is_target:
            raise refusal("The statement does what is not allowed here.", f"has {token.text.upper()} inside")


def _check_quotes(text: str, policy: Policy) -> None:
    """Refuse a text in which the two readers see strings or quoted names at different places."""
    ours = {token.end for token in policy.lexis.tokens(text) if token.kind in {Kind.STRING, Kind.NAME}}
    tokens = Dialect.get_or_raise(policy.dialect).tokenize(text)
    theirs = {token.end + 1 for token in tokens if token.token_type in _QUOTED}
    if ours != theirs:
        raise refusal("The statement is not understood.", "write its strings and quoted names more plainly")


# -- tables ------------------------------------------------------------------------------------------


def _check_table(table: exp.Table, policy: Policy) -> None:
    if isinstance(table.this, exp.Func) or (table.this is None and table.args.get("rows_from")):
        return  # judged as what it calls
    if not isinstance(table.this, exp.Identifier):
        raise refusal("There is no such table.", f"reads from {table.sql(policy.dialect)[:80]}")
    named = [_name(part, policy) for part in (table.args.get("catalog"), table.args.get("db"), table.this)]
    catalog, schema, name = named
    if catalog and catalog != policy.allowed_catalog:
        raise refusal("There is no such table.", f"names another database: {catalog[:60]!r}")
    if not schema and _is_expression(table, name, policy):
        return
    if policy.tables is not None:
        places = [schema] if schema else policy.default_schemas
        if not any((place, name) in policy.tables for place in places):
            raise refusal("There is no such table.", f"names {table.sql(policy.dialect)[:80]}")
    elif _is_hidden(schema, name, policy) or (policy.has_file_tables and not _PLAIN.fullmatch(name)):
        raise refusal("There is no such table.", f"names {table.sql(policy.dialect)[:80]}; use metadata")


def _is_hidden(schema: str, name: str, policy: Policy) -> bool:
    if schema:
        folded = schema.lower()
        own = policy.default_schemas
        is_system = folded in policy.hidden_schemas or folded.startswith(tuple(policy.hidden_prefixes))
        return is_system and schema not in own
    return name.lower().startswith(tuple(policy.hidden_prefixes))


def _name(part: exp.Expr | str | None, policy: Policy) -> str:
    if not isinstance(part, exp.Expr) or not part.name:
        return ""  # of ``a..b`` the parser keeps a text
    if isinstance(part, exp.Identifier) and part.args.get("quoted"):
        return str(part.name)
    return part.name.upper() if policy.folds_upper else part.name.lower()


def _is_expression(table: exp.Table, name: str, policy: Policy) -> bool:
    """Whether ``name`` is a common table expression where it stands: one out of its scope would be a table."""
    node: exp.Expr = table
    while node.parent is not None:
        inside, node = node, node.parent
        clause = inside if isinstance(inside, exp.With) else node.args.get("with_")
        if not isinstance(clause, exp.With):
            continue
        names = [_name(each.args["alias"].this, policy) for each in clause.expressions]
        if clause is inside and not clause.args.get("recursive"):
            names = names[: _position(table, clause)]
        if name in names:
            return True
    return False


def _position(table: exp.Table, clause: exp.With) -> int:
    """The number of the expression that ``table`` stands in: it sees those before it."""
    node: exp.Expr = table
    while node.parent is not clause and node.parent is not None:
        node = node.parent
    return next(number for number, each in enumerate(clause.expressions) if each is node)


# -- calls -------------------------------------------------------------------------------------------


def _check_calls(tokens: Sequence[Token], tree: exp.Expr, policy: Policy) -> None:
    """Refuse whatever stands before a parenthesis and is neither allowed nor a list of columns."""
    wanted = Counter(name for name in called(tokens) if name not in policy.functions)
    if not wanted:
        return
    for alias in tree.find_all(exp.TableAlias):
        if alias.columns:
            wanted[alias.name.lower()] -= 1
    for target in tree.find_all(exp.Schema):
        if isinstance(target.this, exp.Table) and isinstance(target.parent, exp.Insert):
            wanted[".".join(part.name.lower() for part in target.this.parts)] -= 1
    refused = sorted(name for name, count in wanted.items() if count > 0)
    if refused:
        raise refusal("A function is not allowed here.", f"calls {refused[0][:64]}")


def called(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield whatever stands before a parenthesis: functions, and tables before a list of columns."""
    for number, token in enumerate(tokens[:-1]):
        if token.kind not in {Kind.WORD, Kind.NAME} or tokens[number + 1].text != "(":
            continue
        is_qualified = number > 0 and tokens[number - 1].text == "."
        name = token.folded
        if is_qualified:
            # A schema may hold functions of the same name as harmless ones.
            schema = (
                tokens[number - 2].folded if number > 1 and tokens[number - 2].kind in {Kind.WORD, Kind.NAME} else ""
            )
            yield f"{schema}.{name}"
        elif token.kind is Kind.NAME or name not in SYNTAX | TYPES:
            yield name
