"""The tables of orders in a tenant's own database, in SQL that every engine takes. Amounts are text: exact."""

from __future__ import annotations

_ORDERS = """
create table if not exists orders (
  order_id varchar(64) not null primary key, customer_reference varchar(128) not null unique,
  fingerprint varchar(64) not null, customer_id varchar(128) not null, customer_name varchar(256) not null,
  customer_email varchar(320), currency varchar(3) not null, order_date varchar(10) not null,
  requested_delivery_date varchar(10), net_total varchar(32) not null, tax_total varchar(32) not null,
  total varchar(32) not null, note text, status varchar(16) not null, cancel_reason text,
  submitted_at varchar(32) not null, category varchar(64), urgency varchar(64), annotation_note text,
  annotation_model varchar(256))
"""
_LINES = """
create table if not exists order_lines (
  order_id varchar(64) not null, line_number integer not null, sku varchar(128) not null, description text,
  quantity varchar(32) not null, unit_price varchar(32) not null, discount varchar(32) not null,
  tax_rate varchar(32) not null, net varchar(32) not null, tax varchar(32) not null,
  primary key (order_id, line_number))
"""
_STEPS = """
create table if not exists order_steps (
  order_id varchar(64) not null, name varchar(16) not null, status varchar(16) not null,
  attempts integer not null, due_at varchar(32) not null, detail text, primary key (order_id, name))
"""
TABLES = (
    _ORDERS,
    _LINES,
    _STEPS,
    "create index if not exists orders_by_time on orders (submitted_at, order_id)",
    "create index if not exists order_steps_open on order_steps (status, due_at)",
)

STEPS = ("event", "integration", "annotation", "cancellation")
"""In the order in which they are taken."""
FIRST_STEPS = STEPS[:3]
"""What has to be done about every order."""
