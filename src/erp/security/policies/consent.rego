# Personal data is used for a purpose (GDPR, article 6): what rests on consent needs that of the subject; the other
# legal bases of article 6(1) (b) to (f) need none. A call that names no purpose is not judged here.
package erp.consent

import rego.v1

without_consent := {"contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"}

needed if {
	input.call.purpose != ""
	not input.call.purpose in without_consent
}

denials contains "the call names a purpose that needs consent, but not whose" if {
	needed
	input.call.subject == ""
}

denials contains "the subject has not consented to this purpose" if {
	needed
	input.call.subject != ""
	input.call.consent != "granted"
}
