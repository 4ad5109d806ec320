"""``erp migrate``: move what one connection holds to another, compare both under load, and switch the route.

command    the command line, and the order of the phases
side       one of the two connections, called through a running server
journal    what a migration has done, kept through a kill
passes     compare and mend until nothing differs; what a domain's copier has to do
storage    objects by key, by their SHA-256
db         tables by their primary key, with the schema translated
bus        events of topics by their id, and the place of groups
cutover    the shadow route, the switch, and what came too late
"""
