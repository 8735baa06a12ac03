-- Whether a host has UEFI firmware, as its agent said when its session began.
ALTER TABLE host_reports ADD COLUMN uefi INTEGER NOT NULL DEFAULT 0;
