# Unit tests of the platform's policy, run by `erp policy test`: what is given beside the example question, and
# what the verdict must be. (docs/how-to/write-a-policy.md shows the example.)
package erp.decision_test

import rego.v1

question := {}

asked(actor, target) := {"actor": actor, "target": target}

called(call) := {"call": call}

allowed(input_) := {"given": input_, "verdict": {"allow": true}}

denied(input_, reason) := {"given": input_, "verdict": {"allow": false, "reason": reason}}

keys := {"area": "admin", "domain": "keys", "name": "*", "action": "list"}

change_keys := {"area": "admin", "domain": "keys", "name": "*", "action": "create", "effect": "write"}

create_tenant := {"area": "admin", "domain": "tenants", "name": "*", "action": "create", "effect": "write"}

test_a_developer_calls_providers := allowed(question)

test_nobody_does_nothing := denied(asked({"roles": []}, {}), "no role may not use providers")

test_an_unknown_role_does_nothing := denied(asked({"roles": ["king"]}, {}), "king may not use providers")

test_an_unknown_area_is_denied := denied(asked({"roles": ["admin"]}, {"area": "moon"}), "admin may not use moon")

test_a_developer_does_not_administer := denied(asked({}, keys), "developer may not administer this")

test_an_operator_reads_administration := allowed(asked({"roles": ["operator"]}, keys))

test_an_operator_does_not_change_keys := denied(asked({"roles": ["operator"]}, change_keys), "operator may not administer this")

test_an_operator_changes_connections := allowed(asked({"roles": ["operator"]}, {"area": "admin", "domain": "connections", "effect": "write"}))

trust := {"area": "admin", "domain": "connections", "name": "auth/oidc", "action": "configure", "effect": "write"}

test_an_operator_does_not_decide_whom_the_tenant_trusts := denied(asked({"roles": ["operator"]}, trust), "only administrators may change whom the tenant trusts")

test_an_administrator_decides_whom_the_tenant_trusts := allowed(asked({"roles": ["admin"]}, trust))

test_an_operator_sees_whom_the_tenant_trusts := allowed(asked({"roles": ["operator"]}, {"area": "admin", "domain": "connections", "name": "auth/oidc", "action": "list"}))

test_break_glass_decides_whom_the_tenant_trusts := allowed(asked({"roles": ["operator"], "elevated": "admin"}, trust))

test_an_administrator_of_a_tenant_makes_no_tenants := denied(asked({"roles": ["admin"]}, create_tenant), "only the platform's administrators may do this")

test_the_platform_makes_tenants := allowed(asked({"roles": ["admin"], "tenant": "platform"}, create_tenant))

test_what_belongs_to_another_tenant_is_denied := denied(asked({}, {"tenant": "globex"}), "it belongs to another tenant")

test_a_scope_that_covers_allows := allowed(asked({"scopes": ["providers:cache/*:read"]}, {}))

test_a_scope_of_another_action_denies := denied(asked({"scopes": ["providers:cache/*:set"]}, {}), "no scope of the key covers it")

test_a_scope_is_no_regular_expression := denied(asked({"scopes": ["providers:[a-z]*/memory:read"]}, {}), "no scope of the key covers it")

test_a_dot_in_a_scope_is_a_dot := denied(asked({"scopes": ["providers:cach./*:read"]}, {}), "no scope of the key covers it")

test_an_agent_reads := allowed(asked({"roles": ["agent"]}, {}))

test_an_agent_destroys_nothing := denied(asked({"roles": ["agent", "admin"]}, {"effect": "destructive"}), "agents may not do what cannot be undone")

test_an_agent_administers_nothing := denied(asked({"roles": ["agent", "admin"]}, change_keys), "agents may not administer")

test_data_stays_in_its_region := denied(
	{"tenant": {"region": "eu"}, "target": {"region": "us"}},
	"the connection is in another region than the tenant's data may be"
)

test_a_part_of_a_region_is_in_it := allowed({"tenant": {"region": "eu"}, "target": {"region": "eu-central"}})

test_a_name_that_only_begins_alike_is_another_region := {"given": {"tenant": {"region": "eu"}, "target": {"region": "europa"}}, "verdict": {"allow": false}}

test_a_call_is_not_served_abroad := denied(
	{"tenant": {"region": "eu"}, "call": {"region": "us-east"}},
	"the layer that serves the call is in another region than the tenant's data may be"
)

test_a_contract_needs_no_consent := allowed(called({"purpose": "contract"}))

test_marketing_needs_consent := denied(called({"purpose": "marketing", "subject": "c-1"}), "the subject has not consented to this purpose")

test_marketing_with_consent_is_allowed := allowed(called({"purpose": "marketing", "subject": "c-1", "consent": "granted"}))

test_withdrawn_consent_denies := {"given": called({"purpose": "marketing", "subject": "c-1", "consent": "withdrawn"}), "verdict": {"allow": false}}

test_a_purpose_without_a_subject_is_denied := denied(called({"purpose": "marketing"}), "the call names a purpose that needs consent, but not whose")

test_break_glass_gives_a_role_for_a_while := {
	"given": asked({"elevated": "admin"}, keys),
	"verdict": {"allow": true, "reason": "break-glass admin"}
}

test_break_glass_does_not_reach_another_tenant := {"given": asked({"elevated": "admin"}, {"tenant": "globex"}), "verdict": {"allow": false}}

test_break_glass_makes_nothing_that_outlasts_it := denied(asked({"roles": ["admin"], "elevated": "admin"}, change_keys), "it would outlast the elevation")

test_who_is_elevated_does_not_approve := denied(
	asked({"roles": ["admin"], "elevated": "admin"}, {"area": "admin", "domain": "break_glass", "action": "approve", "effect": "write"}),
	"it is not for whoever is elevated"
)

test_a_developer_asks_for_more := allowed(asked({}, {"area": "admin", "domain": "break_glass", "name": "operator", "action": "request", "effect": "write"}))

test_a_developer_does_not_approve := denied(asked({}, {"area": "admin", "domain": "break_glass", "action": "approve", "effect": "write"}), "developer may not administer this")

test_only_the_platform_erases_audit_records := denied(
	asked({"roles": ["admin"]}, {"area": "admin", "domain": "audit", "action": "erase", "effect": "destructive"}),
	"only the platform's administrators may do this"
)
