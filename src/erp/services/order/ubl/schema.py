"""The part of UBL-Order-2.1 that the service looks into (OASIS Universal Business Language 2.1, 4 November 2013).

Each type is its sequence of children in the order of the schema: ``name`` once, ``name?`` at most once, ``name*``
any number, ``name+`` at least once. A ``cac:`` element without a type here may stand where it stands, and is not
looked into. What a ``cbc:`` element holds follows from the last word of its name, as UBL's naming rules have it.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "Order"

_PERIOD = (
    "cbc:StartDate? cbc:StartTime? cbc:EndDate? cbc:EndTime? cbc:DurationMeasure? cbc:DescriptionCode* cbc:Description*"
)
_IDENTIFICATION = (
    "cbc:ID cbc:ExtendedID? cbc:BarcodeSymbologyID? cac:PhysicalAttribute* cac:MeasurementDimension* cac:IssuerParty?"
)
_SEQUENCES = {
    "Order": """
        ext:UBLExtensions? cbc:UBLVersionID? cbc:CustomizationID? cbc:ProfileID? cbc:ProfileExecutionID? cbc:ID
        cbc:SalesOrderID? cbc:CopyIndicator? cbc:UUID? cbc:IssueDate cbc:IssueTime? cbc:OrderTypeCode? cbc:Note*
        cbc:RequestedInvoiceCurrencyCode? cbc:DocumentCurrencyCode? cbc:PricingCurrencyCode? cbc:TaxCurrencyCode?
        cbc:CustomerReference? cbc:AccountingCostCode? cbc:AccountingCost? cbc:LineCountNumeric? cac:ValidityPeriod*
        cac:QuotationDocumentReference? cac:OrderDocumentReference* cac:OriginatorDocumentReference?
        cac:CatalogueReference? cac:AdditionalDocumentReference* cac:Contract* cac:ProjectReference* cac:Signature*
        cac:BuyerCustomerParty cac:SellerSupplierParty cac:OriginatorCustomerParty? cac:FreightForwarderParty?
        cac:AccountingCustomerParty? cac:AccountingSupplierParty? cac:Delivery* cac:DeliveryTerms? cac:PaymentMeans*
        cac:PaymentTerms* cac:TransactionConditions? cac:AllowanceCharge* cac:TaxExchangeRate?
        cac:PricingExchangeRate? cac:PaymentExchangeRate? cac:DestinationCountry? cac:TaxTotal*
        cac:AnticipatedMonetaryTotal? cac:OrderLine+
        """,
    "cac:BuyerCustomerParty": """
        cbc:CustomerAssignedAccountID? cbc:SupplierAssignedAccountID? cbc:AdditionalAccountID* cac:Party?
        cac:DeliveryContact? cac:AccountingContact? cac:BuyerContact?
        """,
    "cac:Party": """
        cbc:MarkCareIndicator? cbc:MarkAttentionIndicator? cbc:WebsiteURI? cbc:LogoReferenceID? cbc:EndpointID?
        cbc:IndustryClassificationCode? cac:PartyIdentification* cac:PartyName* cac:Language? cac:PostalAddress?
        cac:PhysicalLocation? cac:PartyTaxScheme* cac:PartyLegalEntity* cac:Contact? cac:Person* cac:AgentParty?
        cac:ServiceProviderParty* cac:PowerOfAttorney* cac:FinancialAccount?
        """,
    "cac:PartyIdentification": "cbc:ID",
    "cac:PartyName": "cbc:Name",
    "cac:PartyLegalEntity": """
        cbc:RegistrationName? cbc:CompanyID? cbc:RegistrationDate? cbc:RegistrationExpirationDate?
        cbc:CompanyLegalFormCode? cbc:CompanyLegalForm? cbc:SoleProprietorshipIndicator?
        cbc:CompanyLiquidationStatusCode? cbc:CorporateStockAmount? cbc:FullyPaidSharesIndicator?
        cac:RegistrationAddress? cac:CorporateRegistrationScheme? cac:HeadOfficeParty? cac:ShareholderParty*
        """,
    "cac:Contact": """
        cbc:ID? cbc:Name? cbc:Telephone? cbc:Telefax? cbc:ElectronicMail? cbc:Note* cac:OtherCommunication*
        """,
    "cac:Delivery": """
        cbc:ID? cbc:Quantity? cbc:MinimumQuantity? cbc:MaximumQuantity? cbc:ActualDeliveryDate?
        cbc:ActualDeliveryTime? cbc:LatestDeliveryDate? cbc:LatestDeliveryTime? cbc:ReleaseID? cbc:TrackingID?
        cac:DeliveryAddress? cac:DeliveryLocation? cac:AlternativeDeliveryLocation? cac:RequestedDeliveryPeriod?
        cac:PromisedDeliveryPeriod? cac:EstimatedDeliveryPeriod? cac:CarrierParty? cac:DeliveryParty?
        cac:NotifyParty* cac:Despatch? cac:DeliveryTerms* cac:MinimumDeliveryUnit? cac:MaximumDeliveryUnit?
        cac:Shipment?
        """,
    "cac:RequestedDeliveryPeriod": _PERIOD,
    "cac:AllowanceCharge": """
        cbc:ID? cbc:ChargeIndicator cbc:AllowanceChargeReasonCode? cbc:AllowanceChargeReason*
        cbc:MultiplierFactorNumeric? cbc:PrepaidIndicator? cbc:SequenceNumeric? cbc:Amount cbc:BaseAmount?
        cbc:AccountingCostCode? cbc:AccountingCost? cbc:PerUnitAmount? cac:TaxCategory* cac:TaxTotal?
        cac:PaymentMeans*
        """,
    "cac:TaxTotal": """
        cbc:TaxAmount cbc:RoundingAmount? cbc:TaxEvidenceIndicator? cbc:TaxIncludedIndicator? cac:TaxSubtotal*
        """,
    "cac:TaxSubtotal": """
        cbc:TaxableAmount? cbc:TaxAmount cbc:CalculationSequenceNumeric? cbc:TransactionCurrencyTaxAmount?
        cbc:Percent? cbc:BaseUnitMeasure? cbc:PerUnitAmount? cbc:TierRange? cbc:TierRatePercent? cac:TaxCategory
        """,
    "cac:TaxCategory": """
        cbc:ID? cbc:Name? cbc:Percent? cbc:BaseUnitMeasure? cbc:PerUnitAmount? cbc:TaxExemptionReasonCode?
        cbc:TaxExemptionReason* cbc:TierRange? cbc:TierRatePercent? cac:TaxScheme
        """,
    "cac:AnticipatedMonetaryTotal": """
        cbc:LineExtensionAmount? cbc:TaxExclusiveAmount? cbc:TaxInclusiveAmount? cbc:AllowanceTotalAmount?
        cbc:ChargeTotalAmount? cbc:PrepaidAmount? cbc:PayableRoundingAmount? cbc:PayableAmount
        cbc:PayableAlternativeAmount?
        """,
    "cac:OrderLine": """
        cbc:SubstitutionStatusCode? cbc:Note* cac:LineItem cac:SellerProposedSubstituteLineItem*
        cac:SellerSubstitutedLineItem* cac:BuyerProposedSubstituteLineItem* cac:CatalogueLineReference?
        cac:QuotationLineReference? cac:OrderLineReference* cac:DocumentReference*
        """,
    "cac:LineItem": """
        cbc:ID cbc:SalesOrderID? cbc:UUID? cbc:Note* cbc:LineStatusCode? cbc:Quantity? cbc:LineExtensionAmount?
        cbc:TotalTaxAmount? cbc:MinimumQuantity? cbc:MaximumQuantity? cbc:MinimumBackorderQuantity?
        cbc:MaximumBackorderQuantity? cbc:InspectionMethodCode? cbc:PartialDeliveryIndicator?
        cbc:BackOrderAllowedIndicator? cbc:AccountingCostCode? cbc:AccountingCost? cbc:WarrantyInformation*
        cac:Delivery* cac:DeliveryTerms? cac:OriginatorParty? cac:OrderedShipment* cac:PricingReference?
        cac:AllowanceCharge* cac:Price? cac:Item cac:SubLineItem* cac:WarrantyValidityPeriod? cac:WarrantyParty?
        cac:TaxTotal* cac:ItemPriceExtension? cac:LineReference*
        """,
    "cac:Price": """
        cbc:PriceAmount cbc:BaseQuantity? cbc:PriceChangeReason* cbc:PriceTypeCode? cbc:PriceType?
        cbc:OrderableUnitFactorRate? cac:ValidityPeriod* cac:PriceList? cac:AllowanceCharge*
        cac:PricingExchangeRate?
        """,
    "cac:Item": """
        cbc:Description* cbc:PackQuantity? cbc:PackSizeNumeric? cbc:CatalogueIndicator? cbc:Name?
        cbc:HazardousRiskIndicator? cbc:AdditionalInformation* cbc:Keyword* cbc:BrandName* cbc:ModelName*
        cac:BuyersItemIdentification? cac:SellersItemIdentification? cac:ManufacturersItemIdentification*
        cac:StandardItemIdentification? cac:CatalogueItemIdentification? cac:AdditionalItemIdentification*
        cac:CatalogueDocumentReference? cac:ItemSpecificationDocumentReference* cac:OriginCountry?
        cac:CommodityClassification* cac:TransactionConditions* cac:HazardousItem* cac:ClassifiedTaxCategory*
        cac:AdditionalItemProperty* cac:ManufacturerParty* cac:InformationContentProviderParty?
        cac:OriginAddress* cac:ItemInstance* cac:Certificate* cac:Dimension*
        """,
    "cac:BuyersItemIdentification": _IDENTIFICATION,
    "cac:SellersItemIdentification": _IDENTIFICATION,
    "cac:StandardItemIdentification": _IDENTIFICATION,
}


@dataclass(frozen=True, slots=True)
class Particle:
    """One place in a sequence."""

    name: str
    position: int
    is_required: bool
    is_repeatable: bool


Sequence = dict[str, Particle]


def _sequence(text: str) -> Sequence:
    found = {}
    for position, word in enumerate(text.split()):
        name = word.rstrip("?*+")
        found[name] = Particle(name, position, word[-1] not in "?*", word[-1] in "*+")
    return found


TYPES: dict[str, Sequence] = {name: _sequence(text) for name, text in _SEQUENCES.items()}
TYPES["cac:ClassifiedTaxCategory"] = TYPES["cac:TaxCategory"]

KINDS = {
    "Amount": "amount",
    "Quantity": "decimal",
    "Numeric": "decimal",
    "Percent": "decimal",
    "Rate": "decimal",
    "Measure": "decimal",
    "Date": "date",
    "Indicator": "indicator",
}
"""Last word of a name -> what its text has to be; anything else is text that must not be empty."""


def kind(name: str) -> str:
    """Return what the text of a ``cbc:`` element has to be."""
    return next((found for word, found in KINDS.items() if name.endswith(word)), "text")
